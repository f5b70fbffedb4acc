//! The command line of Playhead: local cloud, simulator, operations.
