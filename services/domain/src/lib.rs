//! The use cases of Chopmark over ports.
//!
//! Owns the port traits ([`ports`]); knows no HTTP framework, no SQL, no broker. Time and
//! randomness come in through [`ports::Clock`] and [`ports::Random`]. A gateway holds one
//! [`Services`]; refusals leave it as [`chopmark_api::Problem`], which names a cause and no value.

pub mod accept;
pub mod access;
pub mod auth;
pub mod cases;
pub mod endpoints;
pub mod explore;
pub mod files;
pub mod id;
pub mod lookup;
pub mod message;
pub mod notarize;
pub mod ports;
pub mod proof;
pub mod quota;
pub mod read;
pub mod record;
pub mod seal;
pub mod tenant;
pub mod waiting;
pub mod webhook;

mod cursor;
mod failure;
mod private;
mod services;
pub mod signature;

pub use services::{Ports, Services, Settings};
