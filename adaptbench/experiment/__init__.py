"""What every experiment stands on: where files are found, environment, keys, failures, progress, timed arms."""
