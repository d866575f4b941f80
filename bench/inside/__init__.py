"""What is measured inside a process of ours, which has the row's settings from its start."""
