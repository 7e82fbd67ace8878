//! What a connection says, and what it expects to hear.
