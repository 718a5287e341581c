"""`doit doctor`: can a deploy work here, and if not, what is to be done?"""
