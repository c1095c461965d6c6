//! The words of the REST surface: requests and their strict readers, answers,
//! problems and their pages, in English and Chinese. It knows nothing of HTTP
//! servers, databases, clocks or keys.

mod text;

pub mod case;
pub mod digest;
pub mod evidence;
pub mod explore;
pub mod headers;
pub mod ids;
pub mod lang;
pub mod ledger;
pub mod limits;
pub mod network;
pub mod operation;
pub mod page;
pub mod parse;
pub mod problem;
pub mod query;
pub mod request;
pub mod signature;
pub mod time;
pub mod verify;
pub mod warning;
pub mod webhook;

pub use lang::Lang;
pub use parse::{parse, parse_batch};
pub use problem::{Problem, ProblemBody, ProblemCode, error_index, error_page};
