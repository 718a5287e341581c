"""`doit gate`: a candidate against a baseline, with real deploys, and the decision."""
