//! Producers and their transactions.

use super::{INT16, INT32, INT64, STRING, Shape, array, field, fields, shape};

pub(super) const INIT_PRODUCER_ID: Shape = shape(
    2,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("producer_id", INT64),
        field("producer_epoch", INT16),
        field("ongoing_txn_producer_id", INT64).since(6),
        field("ongoing_txn_producer_epoch", INT16).since(6),
    ],
);

pub(super) const ADD_PARTITIONS_TO_TXN: Shape = shape(
    3,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16).since(4),
        field(
            "results_by_transaction",
            array(&fields(&[
                field("transactional_id", STRING),
                field(
                    "topic_results",
                    array(&fields(&[
                        field("name", STRING),
                        field(
                            "results_by_partition",
                            array(&fields(&[field("partition_index", INT32), field("partition_error_code", INT16)])),
                        ),
                    ])),
                ),
            ])),
        )
        .since(4),
        field(
            "results_by_topic_v3_and_below",
            array(&fields(&[
                field("name", STRING),
                field(
                    "results_by_partition",
                    array(&fields(&[field("partition_index", INT32), field("partition_error_code", INT16)])),
                ),
            ])),
        )
        .until(3),
    ],
);

pub(super) const ADD_OFFSETS_TO_TXN: Shape = shape(3, &[field("throttle_time_ms", INT32), field("error_code", INT16)]);

pub(super) const END_TXN: Shape = shape(
    3,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("producer_id", INT64).since(5),
        field("producer_epoch", INT16).since(5),
    ],
);

pub(super) const TXN_OFFSET_COMMIT: Shape = shape(
    3,
    &[
        field("throttle_time_ms", INT32),
        field(
            "topics",
            array(&fields(&[
                field("name", STRING),
                field("partitions", array(&fields(&[field("partition_index", INT32), field("error_code", INT16)]))),
            ])),
        ),
    ],
);

pub(super) const WRITE_TXN_MARKERS: Shape = shape(
    0,
    &[field(
        "markers",
        array(&fields(&[
            field("producer_id", INT64),
            field(
                "topics",
                array(&fields(&[
                    field("name", STRING),
                    field("partitions", array(&fields(&[field("partition_index", INT32), field("error_code", INT16)]))),
                ])),
            ),
        ])),
    )],
);

pub(super) const DESCRIBE_PRODUCERS: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field(
            "topics",
            array(&fields(&[
                field("name", STRING),
                field(
                    "partitions",
                    array(&fields(&[
                        field("partition_index", INT32),
                        field("error_code", INT16),
                        field("error_message", STRING),
                        field(
                            "active_producers",
                            array(&fields(&[
                                field("producer_id", INT64),
                                field("producer_epoch", INT32),
                                field("last_sequence", INT32),
                                field("last_timestamp", INT64),
                                field("coordinator_epoch", INT32),
                                field("current_txn_start_offset", INT64),
                            ])),
                        ),
                    ])),
                ),
            ])),
        ),
    ],
);

pub(super) const DESCRIBE_TRANSACTIONS: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field(
            "transaction_states",
            array(&fields(&[
                field("error_code", INT16),
                field("transactional_id", STRING),
                field("transaction_state", STRING),
                field("transaction_timeout_ms", INT32),
                field("transaction_start_time_ms", INT64),
                field("producer_id", INT64),
                field("producer_epoch", INT16),
                field("topics", array(&fields(&[field("topic", STRING), field("partitions", array(&INT32))]))),
            ])),
        ),
    ],
);

pub(super) const LIST_TRANSACTIONS: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("unknown_state_filters", array(&STRING)),
        field(
            "transaction_states",
            array(&fields(&[
                field("transactional_id", STRING),
                field("producer_id", INT64),
                field("transaction_state", STRING),
            ])),
        ),
    ],
);
