"""Run experiments: declare them, prepare their data, train every cell, score every cell."""
