//! The domain of Playhead: contract, validation, session join, envelope. Pure.
