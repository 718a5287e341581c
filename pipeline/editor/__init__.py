"""Build on save: hooks for editors and git, `doit watch`, the run that waits in the background."""
