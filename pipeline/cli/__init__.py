"""doit's commands and reporter, and the views that they show."""
