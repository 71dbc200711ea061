//! Runs a segment: step by step, each announced before and recorded after.
