//! A WhatsApp server for the tests.
