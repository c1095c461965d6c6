//! Random histories against a model that is a few maps: what the sentences of the ports' documentation
//! amount to when they meet.

use std::collections::{BTreeMap, BTreeSet};

use chopmark_domain::record::{
    AcceptedOperation, ListQuery, OperationRow, OperationState, ProjectedBlock, ProjectedOperation,
};

use crate::fixtures::*;

const HISTORIES: u64 = 6;
const STEPS: u64 = 60;
/// Few, so that they meet.
const OPERATIONS: u64 = 30;
const ATTEMPTS: u64 = 3;

#[derive(Default)]
struct Model {
    rows: Vec<OperationRow>,
    private: BTreeSet<(u64, u64)>,
    blocks: Vec<ProjectedBlock>,
    height: u64,
}

impl Model {
    fn row(&mut self, number: u64) -> Option<&mut OperationRow> {
        self.rows.iter_mut().find(|row| row.op == op(number))
    }

    fn accept(&mut self, number: u64, attempt: u64, sent: &AcceptedOperation) {
        let settled = match self.row(number) {
            None => {
                self.rows.push(OperationRow {
                    sequence: 0,
                    key: sent.key,
                    op: sent.op,
                    tenant: sent.tenant.clone(),
                    kind: sent.kind,
                    request: sent.request,
                    operation_hash: sent.operation_hash,
                    accepted_at: sent.accepted_at,
                    state: OperationState::Accepted,
                    conflicted: false,
                });
                None
            }
            Some(row) => {
                row.conflicted |= row.request != sent.request;
                (row.state != OperationState::Accepted).then_some(row.operation_hash)
            }
        };
        if settled.is_none_or(|hash| hash == sent.operation_hash) {
            self.private.insert((number, attempt));
        }
    }

    fn project(&mut self, block: &ProjectedBlock) {
        self.height = block.height;
        for outcome in &block.operations {
            let number = (0..OPERATIONS).find(|number| op(*number) == outcome.op).unwrap();
            match self.row(number) {
                None => self.rows.push(OperationRow {
                    sequence: 0,
                    key: outcome.key,
                    op: outcome.op,
                    tenant: outcome.tenant.clone(),
                    kind: outcome.kind,
                    request: outcome.request,
                    operation_hash: outcome.operation_hash,
                    accepted_at: block.time,
                    state: outcome.state,
                    conflicted: false,
                }),
                Some(row) => {
                    row.conflicted |= row.request != outcome.request;
                    row.request = outcome.request;
                    row.operation_hash = outcome.operation_hash;
                    row.state = outcome.state;
                }
            }
            self.private.retain(|(op, attempt)| *op != number || h("attempt", *attempt) == outcome.operation_hash);
        }
    }

    fn reset(&mut self) {
        self.height = 0;
        self.rows.iter_mut().for_each(|row| row.state = OperationState::Accepted);
    }
}

/// Attempts 1 and 2 are at request 1, attempt 3 at request 2.
fn sent(number: u64, at: u64) -> AcceptedOperation {
    AcceptedOperation { request: h("request", 1 + at / ATTEMPTS), ..attempt(number, at) }
}

pub(crate) async fn random_histories_match_the_model(backend: &impl Backend) {
    let store = backend.open().await;
    // Each history has the network to itself, one after the other: a database is slow to make.
    for seed in 0..HISTORIES {
        let network = format!("network-{seed}");
        run(&store, &network, seed).await;
    }
}

async fn run(store: &impl Store, network: &str, seed: u64) {
    let mut random = Seeded(seed);
    let mut model = Model::default();
    let mut settled = BTreeSet::new();
    for step in 0..STEPS {
        let context = format!("seed {seed}, step {step}");
        match random.below(10) {
            0..=4 => {
                let batch: Vec<_> =
                    (0..random.below(8)).map(|_| (random.below(OPERATIONS), 1 + random.below(ATTEMPTS))).collect();
                batch.iter().for_each(|(number, at)| model.accept(*number, *at, &sent(*number, *at)));
                let rows = batch
                    .iter()
                    .map(|(number, at)| AcceptedOperation { network: network.to_owned(), ..sent(*number, *at) });
                store.insert_accepted(rows.collect()).await.expect(&context);
            }
            5..=7 => {
                let next = model.height + 1;
                let known = model.blocks.iter().find(|block| block.height == next).cloned();
                let block = known.unwrap_or_else(|| {
                    let block = new_block(&mut random, network, next, &mut settled);
                    model.blocks.push(block.clone());
                    block
                });
                assert!(store.project(block.clone()).await.expect(&context), "{context}");
                assert!(!store.project(block.clone()).await.expect(&context), "{context}");
                model.project(&block);
            }
            8 => {
                store.reset(network).await.expect(&context);
                model.reset();
            }
            _ => {}
        }
        compare(store, network, &model, &context).await;
    }
}

/// A block over operations that have no outcome yet; what has one keeps it through every reset.
fn new_block(random: &mut Seeded, network: &str, height: u64, settled: &mut BTreeSet<u64>) -> ProjectedBlock {
    let mut operations: BTreeMap<u64, ProjectedOperation> = BTreeMap::new();
    for _ in 0..random.below(4) {
        let number = random.below(OPERATIONS);
        if settled.insert(number) {
            let state = if random.below(3) == 0 { rejected(height) } else { committed(height, number) };
            operations.insert(number, outcome(&sent(number, 1 + random.below(ATTEMPTS)), state));
        }
    }
    ProjectedBlock { network: network.to_owned(), ..block(height, operations.into_values().collect()) }
}

async fn compare(store: &impl Store, network: &str, model: &Model, context: &str) {
    let query = ListQuery { network: network.to_owned(), ..everything() };
    let mut rows = store.list(query).await.expect(context);
    rows.reverse();
    assert!(rows.is_sorted_by_key(|row| row.sequence), "{context}");
    rows.iter_mut().for_each(|row| row.sequence = 0);
    assert_eq!(rows, model.rows, "{context}");

    let height = store.cursor(network).await.expect(context).map_or(0, |cursor| cursor.height);
    assert_eq!(height, model.height, "{context}");
    for number in 0..OPERATIONS {
        for at in 1..=ATTEMPTS {
            let sealed = store.sealed_private(network, TENANT, &op(number), &h("attempt", at)).await.expect(context);
            assert_eq!(sealed.is_some(), model.private.contains(&(number, at)), "{context}: {number}, attempt {at}");
        }
    }
}
