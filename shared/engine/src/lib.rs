//! The domain of Overseer and the ports it needs: an agent's intent comes in, a service is called, and one shape of
//! outcome goes out.
//!
//! The folders stand in layers, and each uses only those below it; `tests/behaviour/layout.rs` holds that. From the top:
//! [`engine`] is the facade, [`agents`] and [`tasks`] decide what runs and when, `invoke` runs one action, [`accounts`],
//! [`registry`] and [`access`] say with which credential, which plugin and by whose right, [`events`] tells others, `outbound`
//! is the only way out, `storage` says how records are stored, [`plugin`] what a plugin is, [`ports`] all that the engine asks
//! of the world, and [`core`] has the types that all of them share. The engine knows no cloud, no HTTP server and no database.

pub mod access;
pub mod accounts;
pub mod agents;
pub mod core;
pub mod engine;
pub mod events;
pub mod invoke;
pub mod outbound;
pub mod plugin;
pub mod ports;
pub mod registry;
pub mod storage;
pub mod tasks;
