//! The engine's ports on AWS.

pub mod table;

pub use table::DynamoTable;
