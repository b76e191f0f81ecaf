"""Measures of what a video shows, their intervals, and the suites that report them."""
