//! The tables as diesel sees them; `schemas/migrations` has the last word.

diesel::table! {
    tenants (network, id) {
        network -> Text,
        id -> Text,
        wrapped_secret -> Binary,
        active -> Bool,
        created_at -> BigInt,
        requests_per_second -> Nullable<BigInt>,
        requests_burst -> Nullable<BigInt>,
        records_per_day -> Nullable<BigInt>,
        signatures_required -> Bool,
    }
}

diesel::table! {
    api_keys (id) {
        id -> Text,
        hash -> Binary,
        network -> Text,
        tenant -> Text,
        scopes -> Text,
        created_at -> BigInt,
        expires_at -> Nullable<BigInt>,
        revoked_at -> Nullable<BigInt>,
        allowed_networks -> Text,
    }
}

diesel::table! {
    signing_keys (network, id) {
        network -> Text,
        id -> Text,
        tenant -> Text,
        public_key -> Binary,
        created_at -> BigInt,
        revoked_at -> Nullable<BigInt>,
    }
}

diesel::table! {
    operations (sequence) {
        sequence -> BigInt,
        network -> Text,
        key -> Binary,
        op -> Binary,
        tenant -> Text,
        kind -> Integer,
        request -> Binary,
        operation_hash -> Binary,
        accepted_at -> BigInt,
        conflicted -> Bool,
        state -> Integer,
        leaf_index -> Nullable<BigInt>,
        entry -> Nullable<Binary>,
        height -> Nullable<BigInt>,
        block_time -> Nullable<BigInt>,
        rejection -> Nullable<Integer>,
    }
}

diesel::table! {
    private_parts (id) {
        id -> BigInt,
        sequence -> BigInt,
        operation_hash -> Binary,
        sealed -> Binary,
        external_index -> Nullable<Binary>,
        accepted_at -> BigInt,
        network -> Text,
        tenant -> Text,
    }
}

diesel::table! {
    case_links (network, case_key, position) {
        network -> Text,
        case_key -> Binary,
        position -> BigInt,
        evidence -> Binary,
        leaf_index -> BigInt,
        entry -> Binary,
        previous -> Binary,
        block_time -> BigInt,
        tenant -> Text,
    }
}

diesel::table! {
    projection_cursors (network) {
        network -> Text,
        height -> BigInt,
        hash -> Binary,
        tree_size -> BigInt,
    }
}

diesel::joinable!(private_parts -> operations (sequence));
diesel::allow_tables_to_appear_in_same_query!(operations, private_parts);
