//! Tests of both embedded servers with real clients.
