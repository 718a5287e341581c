"""A directory for PYTHONPATH: `sitecustomize.py` in it says which files a Python program reads."""
