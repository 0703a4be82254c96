//! What a client asks of the cluster as a whole.

use super::{BOOL, INT8, INT16, INT32, INT64, STRING, Shape, UUID, array, field, fields, optional, shape};

pub(super) const API_VERSIONS: Shape = shape(
    3,
    &[
        field("error_code", INT16),
        field(
            "api_keys",
            array(&fields(&[field("api_key", INT16), field("min_version", INT16), field("max_version", INT16)])),
        ),
        field("throttle_time_ms", INT32).since(1),
        field(
            "supported_features",
            array(&fields(&[field("name", STRING), field("min_version", INT16), field("max_version", INT16)])),
        )
        .tagged(0),
        field("finalized_features_epoch", INT64).tagged(1),
        field(
            "finalized_features",
            array(&fields(&[
                field("name", STRING),
                field("max_version_level", INT16),
                field("min_version_level", INT16),
            ])),
        )
        .tagged(2),
        field("zk_migration_ready", BOOL).tagged(3),
    ],
);

pub(super) const METADATA: Shape = shape(
    9,
    &[
        field("throttle_time_ms", INT32).since(3),
        field(
            "brokers",
            array(&fields(&[
                field("node_id", INT32),
                field("host", STRING),
                field("port", INT32),
                field("rack", STRING).since(1),
            ])),
        ),
        field("cluster_id", STRING).since(2),
        field("controller_id", INT32).since(1),
        field(
            "topics",
            array(&fields(&[
                field("error_code", INT16),
                field("name", STRING),
                field("topic_id", UUID).since(10),
                field("is_internal", BOOL).since(1),
                field(
                    "partitions",
                    array(&fields(&[
                        field("error_code", INT16),
                        field("partition_index", INT32),
                        field("leader_id", INT32),
                        field("leader_epoch", INT32).since(7),
                        field("replica_nodes", array(&INT32)),
                        field("isr_nodes", array(&INT32)),
                        field("offline_replicas", array(&INT32)).since(5),
                    ])),
                ),
                field("topic_authorized_operations", INT32).since(8),
            ])),
        ),
        field("cluster_authorized_operations", INT32).since(8).until(10),
        field("error_code", INT16).since(13),
    ],
);

pub(super) const DESCRIBE_CLUSTER: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("error_message", STRING),
        field("endpoint_type", INT8).since(1),
        field("cluster_id", STRING),
        field("controller_id", INT32),
        field(
            "brokers",
            array(&fields(&[
                field("broker_id", INT32),
                field("host", STRING),
                field("port", INT32),
                field("rack", STRING),
                field("is_fenced", BOOL).since(2),
            ])),
        ),
        field("cluster_authorized_operations", INT32),
    ],
);

pub(super) const FIND_COORDINATOR: Shape = shape(
    3,
    &[
        field("throttle_time_ms", INT32).since(1),
        field("error_code", INT16).until(3),
        field("error_message", STRING).since(1).until(3),
        field("node_id", INT32).until(3),
        field("host", STRING).until(3),
        field("port", INT32).until(3),
        field(
            "coordinators",
            array(&fields(&[
                field("key", STRING),
                field("node_id", INT32),
                field("host", STRING),
                field("port", INT32),
                field("error_code", INT16),
                field("error_message", STRING),
            ])),
        )
        .since(4),
    ],
);

pub(super) const DESCRIBE_QUORUM: Shape = shape(
    0,
    &[
        field("error_code", INT16),
        field("error_message", STRING).since(2),
        field(
            "topics",
            array(&fields(&[
                field("topic_name", STRING),
                field(
                    "partitions",
                    array(&fields(&[
                        field("partition_index", INT32),
                        field("error_code", INT16),
                        field("error_message", STRING).since(2),
                        field("leader_id", INT32),
                        field("leader_epoch", INT32),
                        field("high_watermark", INT64),
                        field(
                            "current_voters",
                            array(&fields(&[
                                field("replica_id", INT32),
                                field("replica_directory_id", UUID).since(2),
                                field("log_end_offset", INT64),
                                field("last_fetch_timestamp", INT64).since(1),
                                field("last_caught_up_timestamp", INT64).since(1),
                            ])),
                        ),
                        field(
                            "observers",
                            array(&fields(&[
                                field("replica_id", INT32),
                                field("replica_directory_id", UUID).since(2),
                                field("log_end_offset", INT64),
                                field("last_fetch_timestamp", INT64).since(1),
                                field("last_caught_up_timestamp", INT64).since(1),
                            ])),
                        ),
                    ])),
                ),
            ])),
        ),
        field(
            "nodes",
            array(&fields(&[
                field("node_id", INT32),
                field(
                    "listeners",
                    array(&fields(&[field("name", STRING), field("host", STRING), field("port", INT16)])),
                ),
            ])),
        )
        .since(2),
    ],
);

pub(super) const UPDATE_FEATURES: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("error_message", STRING),
        field(
            "results",
            array(&fields(&[field("feature", STRING), field("error_code", INT16), field("error_message", STRING)])),
        )
        .until(1),
    ],
);

pub(super) const UNREGISTER_BROKER: Shape =
    shape(0, &[field("throttle_time_ms", INT32), field("error_code", INT16), field("error_message", STRING)]);

pub(super) const ADD_RAFT_VOTER: Shape =
    shape(0, &[field("throttle_time_ms", INT32), field("error_code", INT16), field("error_message", STRING)]);

pub(super) const REMOVE_RAFT_VOTER: Shape =
    shape(0, &[field("throttle_time_ms", INT32), field("error_code", INT16), field("error_message", STRING)]);

pub(super) const DESCRIBE_TOPIC_PARTITIONS: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field(
            "topics",
            array(&fields(&[
                field("error_code", INT16),
                field("name", STRING),
                field("topic_id", UUID),
                field("is_internal", BOOL),
                field(
                    "partitions",
                    array(&fields(&[
                        field("error_code", INT16),
                        field("partition_index", INT32),
                        field("leader_id", INT32),
                        field("leader_epoch", INT32),
                        field("replica_nodes", array(&INT32)),
                        field("isr_nodes", array(&INT32)),
                        field("eligible_leader_replicas", array(&INT32)),
                        field("last_known_elr", array(&INT32)),
                        field("offline_replicas", array(&INT32)),
                    ])),
                ),
                field("topic_authorized_operations", INT32),
            ])),
        ),
        field("next_cursor", optional(&[field("topic_name", STRING), field("partition_index", INT32)])),
    ],
);
