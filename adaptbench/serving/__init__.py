"""Serving under load: arrivals, batches with a deadline, replicas, hostile requests; simulated from measured times."""
