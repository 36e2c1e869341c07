//! What journeys are made of: real directories, a real SQLite file, the real host, the real runner in real
//! containers (or in the engine stand-in's namespaces), and servers that speak the wires of what is out of reach.

pub mod bench;
pub mod crash;
pub mod engine;
pub mod hostile;
pub mod images;
pub mod model;
pub mod settings;
pub mod telegram;
pub mod world;
