"""Generated rooms and streets: the renderer, and the samples it makes."""
