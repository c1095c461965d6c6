//! The REST edge: authenticate, parse, one call into the domain, render.
//!
//! A gateway holds no state that matters: any of them can answer anything, and one can be killed
//! at any time. It refuses whatever it cannot read to the last byte, and says why in one
//! document, `application/problem+json`, rendered in one place (`edge.rs`).

mod auth;
mod body;
mod config;
mod edge;
mod handlers;
mod limit;
mod openapi;
mod originals;
mod refusal;
mod render;
mod routes;
mod server;
mod signature;
mod state;

pub use auth::LogReader;
pub use config::GatewayConfig;
pub use openapi::{document as openapi_document, yaml as openapi_yaml};
pub use originals::ObjectOriginals;
pub use server::{Gateway, Serving, Stopper};
