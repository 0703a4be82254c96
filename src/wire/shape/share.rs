//! Share groups (KIP-932).

use super::{BYTES, INT16, INT32, INT64, STRING, Shape, UUID, array, field, fields, optional, shape};

pub(super) const SHARE_GROUP_HEARTBEAT: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("error_message", STRING),
        field("member_id", STRING),
        field("member_epoch", INT32),
        field("heartbeat_interval_ms", INT32),
        field(
            "assignment",
            optional(&[field(
                "topic_partitions",
                array(&fields(&[field("topic_id", UUID), field("partitions", array(&INT32))])),
            )]),
        ),
    ],
);

pub(super) const SHARE_GROUP_DESCRIBE: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field(
            "groups",
            array(&fields(&[
                field("error_code", INT16),
                field("error_message", STRING),
                field("group_id", STRING),
                field("group_state", STRING),
                field("group_epoch", INT32),
                field("assignment_epoch", INT32),
                field("assignor_name", STRING),
                field(
                    "members",
                    array(&fields(&[
                        field("member_id", STRING),
                        field("rack_id", STRING),
                        field("member_epoch", INT32),
                        field("client_id", STRING),
                        field("client_host", STRING),
                        field("subscribed_topic_names", array(&STRING)),
                        field(
                            "assignment",
                            fields(&[field(
                                "topic_partitions",
                                array(&fields(&[
                                    field("topic_id", UUID),
                                    field("topic_name", STRING),
                                    field("partitions", array(&INT32)),
                                ])),
                            )]),
                        ),
                    ])),
                ),
                field("authorized_operations", INT32),
            ])),
        ),
    ],
);

pub(super) const SHARE_FETCH: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("error_message", STRING),
        field("acquisition_lock_timeout_ms", INT32),
        field(
            "responses",
            array(&fields(&[
                field("topic_id", UUID),
                field(
                    "partitions",
                    array(&fields(&[
                        field("partition_index", INT32),
                        field("error_code", INT16),
                        field("error_message", STRING),
                        field("acknowledge_error_code", INT16),
                        field("acknowledge_error_message", STRING),
                        field("current_leader", fields(&[field("leader_id", INT32), field("leader_epoch", INT32)])),
                        field("records", BYTES),
                        field(
                            "acquired_records",
                            array(&fields(&[
                                field("first_offset", INT64),
                                field("last_offset", INT64),
                                field("delivery_count", INT16),
                            ])),
                        ),
                    ])),
                ),
            ])),
        ),
        field(
            "node_endpoints",
            array(&fields(&[
                field("node_id", INT32),
                field("host", STRING),
                field("port", INT32),
                field("rack", STRING),
            ])),
        ),
    ],
);

pub(super) const SHARE_ACKNOWLEDGE: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("error_message", STRING),
        field(
            "responses",
            array(&fields(&[
                field("topic_id", UUID),
                field(
                    "partitions",
                    array(&fields(&[
                        field("partition_index", INT32),
                        field("error_code", INT16),
                        field("error_message", STRING),
                        field("current_leader", fields(&[field("leader_id", INT32), field("leader_epoch", INT32)])),
                    ])),
                ),
            ])),
        ),
        field(
            "node_endpoints",
            array(&fields(&[
                field("node_id", INT32),
                field("host", STRING),
                field("port", INT32),
                field("rack", STRING),
            ])),
        ),
    ],
);

pub(super) const DESCRIBE_SHARE_GROUP_OFFSETS: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field(
            "groups",
            array(&fields(&[
                field("group_id", STRING),
                field(
                    "topics",
                    array(&fields(&[
                        field("topic_name", STRING),
                        field("topic_id", UUID),
                        field(
                            "partitions",
                            array(&fields(&[
                                field("partition_index", INT32),
                                field("start_offset", INT64),
                                field("leader_epoch", INT32),
                                field("error_code", INT16),
                                field("error_message", STRING),
                            ])),
                        ),
                    ])),
                ),
                field("error_code", INT16),
                field("error_message", STRING),
            ])),
        ),
    ],
);

pub(super) const ALTER_SHARE_GROUP_OFFSETS: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("error_message", STRING),
        field(
            "responses",
            array(&fields(&[
                field("topic_name", STRING),
                field("topic_id", UUID),
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

pub(super) const DELETE_SHARE_GROUP_OFFSETS: Shape = shape(
    0,
    &[
        field("throttle_time_ms", INT32),
        field("error_code", INT16),
        field("error_message", STRING),
        field(
            "responses",
            array(&fields(&[
                field("topic_name", STRING),
                field("topic_id", UUID),
                field("error_code", INT16),
                field("error_message", STRING),
            ])),
        ),
    ],
);
