//! Databases, through sqlplus.
