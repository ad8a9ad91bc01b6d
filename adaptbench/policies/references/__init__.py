"""What every policy is held against: fixed, drawn, mixed, all-knowing."""
