//! Fetched batches on their way to the reader.
//!
//! `fetch_buffer` holds the locks. `partition_buffer` keeps the batches of one partition in offset
//! order, `fetch_collector` takes them in turn over the partitions, and `record_reader` decodes
//! them and returns their records. `split_reader` and `manual_reader` serve readers of single
//! partitions.

pub(super) mod delivery_queue;
pub(super) mod fetch_buffer;
pub(super) mod fetched_batch;
pub(super) mod gathered;
pub(super) mod manual_reader;
pub(super) mod owned_record;
pub(super) mod partition_buffer;
pub(super) mod partition_end;
pub(super) mod readers;
pub(super) mod reading;
pub(super) mod record_reader;
pub(super) mod split;
pub(super) mod wakeups;
