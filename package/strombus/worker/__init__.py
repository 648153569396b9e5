"""What runs on a worker: module-level tasks that an executor is given."""
