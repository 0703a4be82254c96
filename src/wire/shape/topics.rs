//! Administration of topics, their replicas and log directories.

use super::{BOOL, INT8, INT16, INT32, INT64, STRING, Shape, UUID, array, field, fields, shape};

pub(super) const CREATE_TOPICS: Shape = shape(
    5,
    &[
        field("throttle_time_ms", INT32),
        field(
            "topics",
            array(&fields(&[
                field("name", STRING),
                field("topic_id", UUID).since(7),
                field("error_code", INT16),
                field("error_message", STRING),
                field("num_partitions", INT32).since(5),
                field("replication_factor", INT16).since(5),
                field(
                    "configs",
                    array(&fields(&[
                        field("name", STRING),
                        field("value", STRING),
                        field("read_only", BOOL),
                        field("config_source", INT8),
                        field("is_sensitive", BOOL),
                    ])),
                )
                .since(5),
                field("topic_config_error_code", INT16).tagged(0),
            ])),
        ),
    ],
);

pub(super) const DELETE_TOPICS: Shape = shape(
    4,
    &[
        field("throttle_time_ms", INT32),
        field(
            "responses",
            array(&fields(&[
                field("name", STRING),
                field("topic_id", UUID).since(6),
                field("error_code", INT16),
                field("error_message", STRING).since(5),
            ])),
        ),
    ],
);

pub(super) const CREATE_PARTITIONS: Shape = shape(
    2,
    &[
        field("throttle_time_ms", INT32),
        field(
            "results",
            array(&fields(&[field("name", STRING), field("error_code", INT16), field("error_message", STRING)])),
        ),
    ],
);

pub(super) const ELECT_LEADERS: Shape = shape(
    2,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16).since(1),
        field(
            "replica_election_results",
            array(&fields(&[
                field("topic", STRING),
                field(
                    "partition_result",
                    array(&fields(&[
                        field("partition_id", INT32),
                        field("error_code", INT16),
                        field("error_message", STRING),
                    ])),
                ),
            ])),
        ),
    ],
);

pub(super) const ALTER_PARTITION_REASSIGNMENTS: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("allow_replication_factor_change", BOOL).since(1),
        field("error_code", INT16),
        field("error_message", STRING),
        field(
            "responses",
            array(&fields(&[
                field("name", STRING),
                field(
                    "partitions",
                    array(&fields(&[
                        field("partition_index", INT32),
                        field("error_code", INT16),
                        field("error_message", STRING),
                    ])),
                ),
            ])),
        ),
    ],
);

pub(super) const LIST_PARTITION_REASSIGNMENTS: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("error_message", STRING),
        field(
            "topics",
            array(&fields(&[
                field("name", STRING),
                field(
                    "partitions",
                    array(&fields(&[
                        field("partition_index", INT32),
                        field("replicas", array(&INT32)),
                        field("adding_replicas", array(&INT32)),
                        field("removing_replicas", array(&INT32)),
                    ])),
                ),
            ])),
        ),
    ],
);

pub(super) const ALTER_REPLICA_LOG_DIRS: Shape = shape(
    2,
    &[
        field("throttle_time_ms", INT32),
        field(
            "results",
            array(&fields(&[
                field("topic_name", STRING),
                field("partitions", array(&fields(&[field("partition_index", INT32), field("error_code", INT16)]))),
            ])),
        ),
    ],
);

pub(super) const DESCRIBE_LOG_DIRS: Shape = shape(
    2,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16).since(3),
        field(
            "results",
            array(&fields(&[
                field("error_code", INT16),
                field("log_dir", STRING),
                field(
                    "topics",
                    array(&fields(&[
                        field("name", STRING),
                        field(
                            "partitions",
                            array(&fields(&[
                                field("partition_index", INT32),
                                field("partition_size", INT64),
                                field("offset_lag", INT64),
                                field("is_future_key", BOOL),
                            ])),
                        ),
                    ])),
                ),
                field("total_bytes", INT64).since(4),
                field("usable_bytes", INT64).since(4),
            ])),
        ),
    ],
);
