"""From run directories to one HTML file that opens offline. Knows nothing of torch."""
