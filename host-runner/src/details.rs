//! What is too large for a report, kept on the host until it is fetched.
