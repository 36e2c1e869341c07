//! What an operator asks: may I restart it at any time, how soon is it back, and what if I start it twice?
