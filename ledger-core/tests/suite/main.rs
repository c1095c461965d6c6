//! Black-box tests of the ledger's formats, tree, state machine and verifier: one binary, a
//! module per question.

mod blocks;
mod canonical_json;
mod corpus;
mod encodings;
mod execution;
mod notes;
mod operations;
mod policies;
mod receipts;
mod replay;
mod schemas;
mod support;
mod tiles;
mod trees;
