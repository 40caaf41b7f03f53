//! Tests of a node in shards.
