"""Pure values and functions: records, snapshots, states, encodings. No I/O and no clock."""
