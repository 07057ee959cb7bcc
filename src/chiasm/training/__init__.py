"""One loop, and recipes: a recipe is a frozen config, `modules()`, `step()` and `evaluate()`."""
