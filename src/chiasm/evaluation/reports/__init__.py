"""Reports as files: tables, plots and sheets of pictures."""
