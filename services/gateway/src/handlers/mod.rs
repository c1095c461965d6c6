//! The handlers, one module for each kind of resource.

pub(crate) mod cases;
pub(crate) mod evidence;
pub(crate) mod explore;
pub(crate) mod files;
pub(crate) mod health;
pub(crate) mod log;
pub(crate) mod operations;
pub(crate) mod pages;
pub(crate) mod verify;
pub(crate) mod webhooks;

mod answer;
