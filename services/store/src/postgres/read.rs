//! Reads of operations, their private parts and case links.
//!
//! Every query names network and tenant, though row-level security would add them: two fences, neither
//! of which relies on the other. A test takes this one away to look at the other ([`TenantFilter`]).

use std::collections::HashMap;

use chopmark_domain::{
    id::ResourceKey,
    record::{CaseLink, ListQuery, OperationRow, StateFilter},
};
use diesel::{
    OptionalExtension as _, PgConnection,
    dsl::{AsSelect, IntoBoxed, exists},
    pg::Pg,
    prelude::*,
};
use ledger_core::hash::Hash32;

use crate::{
    LIST_INDEXES_MAX, PAGE_ROWS_MAX,
    failure::Failure,
    filter::TenantFilter,
    row::{CaseLinkRecord, OperationRecord, bound, kind_number, state_number},
    schema::{case_links, operations, private_parts},
};

pub(super) fn find(
    connection: &mut PgConnection,
    filter: TenantFilter,
    network: &str,
    tenant: &str,
    keys: &[ResourceKey],
) -> Result<Vec<Option<OperationRow>>, Failure> {
    let mut select = operations::table
        .filter(operations::key.eq_any(keys.iter().map(|key| &key.0[..]).collect::<Vec<_>>()))
        .select(OperationRecord::as_select())
        .into_boxed();
    if filter.is_on() {
        // No condition for an index: a key leads to one row, a tenant's index to all of its rows.
        let is_theirs = operations::tenant.is_not_distinct_from(tenant);
        select = select.filter(operations::network.eq(network)).filter(is_theirs);
    }
    let records: Vec<OperationRecord> = select.load(connection)?;
    let rows = records.into_iter().map(|record| OperationRow::try_from(record).map(|row| (row.key, row)));
    let rows: HashMap<_, _> = rows.collect::<Result<_, _>>()?;
    Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
}

pub(super) fn list(
    connection: &mut PgConnection,
    filter: TenantFilter,
    query: &ListQuery,
) -> Result<Vec<OperationRow>, Failure> {
    let records: Vec<OperationRecord> = select(filter, query)?.load(connection)?;
    Ok(records.into_iter().map(OperationRow::try_from).collect::<Result<_, _>>()?)
}

type Select<'a> = IntoBoxed<'a, diesel::dsl::Select<operations::table, AsSelect<OperationRecord, Pg>>, Pg>;

fn select(filter: TenantFilter, query: &ListQuery) -> Result<Select<'_>, Failure> {
    let mut select = operations::table
        .select(OperationRecord::as_select())
        .filter(operations::kind.eq(kind_number(query.kind)))
        .order(operations::sequence.desc())
        .limit(i64::from(query.limit.min(PAGE_ROWS_MAX)))
        .into_boxed();
    if filter.is_on() {
        select = select.filter(operations::network.eq(&query.network)).filter(operations::tenant.eq(&query.tenant));
    }
    if let Some(before) = query.before {
        select = select.filter(operations::sequence.lt(bound(before)));
    }
    if let Some(from) = query.from {
        select = select.filter(operations::accepted_at.ge(bound(from)));
    }
    if let Some(to) = query.to {
        select = select.filter(operations::accepted_at.lt(bound(to)));
    }
    if let Some(state) = query.state {
        select = select.filter(operations::state.eq(state_number(state)));
        if state != StateFilter::Committed {
            // The condition of the index over what is not committed: a prepared statement's plan does
            // not know the state that it is asked for.
            select = select.filter(diesel::dsl::sql::<diesel::sql_types::Bool>("state <> 1"));
        }
    }
    if let Some(external) = &query.external_index {
        // The subquery alone finds the rows by the index over external ids; the second condition
        // drops those where another attempt than the one that holds the id brought it. A macro: a query
        // that refers to one around it cannot be boxed.
        macro_rules! brought_by {
            ($attempt:expr) => {{
                let attempts = || private_parts::table.filter($attempt);
                let is_of = private_parts::sequence.eq(operations::sequence);
                let is_held = private_parts::operation_hash.eq(operations::operation_hash);
                select
                    .filter(operations::sequence.eq_any(attempts().select(private_parts::sequence)))
                    .filter(exists(attempts().filter(is_of).filter(is_held)))
            }};
        }
        let has_id = || private_parts::external_index.eq(&external.0[..]);
        select = if filter.is_on() {
            brought_by!(has_id().and(private_parts::tenant.eq(&query.tenant)))
        } else {
            brought_by!(has_id())
        };
    }
    if let Some(indexes) = &query.indexes {
        if indexes.len() > LIST_INDEXES_MAX {
            return Err(Failure::Invariant(format!("a list by {} leaf indexes", indexes.len())));
        }
        let indexes: Vec<_> = indexes.iter().filter_map(|at| i64::try_from(*at).ok()).collect();
        select = select.filter(operations::leaf_index.eq_any(indexes));
    }
    Ok(select)
}

pub(super) fn sealed_private(
    connection: &mut PgConnection,
    filter: TenantFilter,
    network: &str,
    tenant: &str,
    op: &Hash32,
    operation_hash: &Hash32,
) -> Result<Option<Vec<u8>>, Failure> {
    let key = ResourceKey::of(op, 0);
    let mut select = operations::table
        .inner_join(private_parts::table)
        .filter(operations::key.eq(&key.0[..]).and(operations::op.eq(&op.0[..])))
        .filter(private_parts::operation_hash.eq(&operation_hash.0[..]))
        .select(private_parts::sealed)
        .into_boxed();
    if filter.is_on() {
        select = select
            .filter(operations::network.eq(network).and(operations::tenant.is_not_distinct_from(tenant)))
            .filter(private_parts::tenant.eq(tenant));
    }
    Ok(select.first(connection).optional()?)
}

pub(super) fn case_links(
    connection: &mut PgConnection,
    filter: TenantFilter,
    network: &str,
    tenant: &str,
    case: &ResourceKey,
    after: u64,
    limit: u32,
) -> Result<Vec<CaseLink>, Failure> {
    let mut select = case_links::table
        .filter(case_links::case_key.eq(&case.0[..]))
        .filter(case_links::position.gt(bound(after)))
        .order(case_links::position.asc())
        .limit(i64::from(limit.min(PAGE_ROWS_MAX)))
        .select(CaseLinkRecord::as_select())
        .into_boxed();
    if filter.is_on() {
        select = select.filter(case_links::network.eq(network)).filter(case_links::tenant.eq(tenant));
    }
    let records: Vec<CaseLinkRecord> = select.load(connection)?;
    Ok(records.into_iter().map(CaseLink::try_from).collect::<Result<_, _>>()?)
}
