"""The services of the pipeline: one file each. service.py says what a service is, runner.py runs them."""
