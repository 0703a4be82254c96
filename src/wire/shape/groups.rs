//! Membership and administration of groups.

use super::{BOOL, BYTES, INT8, INT16, INT32, STRING, Shape, UUID, array, field, fields, optional, shape};

pub(super) const JOIN_GROUP: Shape = shape(
    6,
    &[
        field("throttle_time_ms", INT32).since(2),
        field("error_code", INT16),
        field("generation_id", INT32),
        field("protocol_type", STRING).since(7),
        field("protocol_name", STRING),
        field("leader", STRING),
        field("skip_assignment", BOOL).since(9),
        field("member_id", STRING),
        field(
            "members",
            array(&fields(&[
                field("member_id", STRING),
                field("group_instance_id", STRING).since(5),
                field("metadata", BYTES),
            ])),
        ),
    ],
);

pub(super) const SYNC_GROUP: Shape = shape(
    4,
    &[
        field("throttle_time_ms", INT32).since(1),
        field("error_code", INT16),
        field("protocol_type", STRING).since(5),
        field("protocol_name", STRING).since(5),
        field("assignment", BYTES),
    ],
);

pub(super) const HEARTBEAT: Shape = shape(4, &[field("throttle_time_ms", INT32).since(1), field("error_code", INT16)]);

pub(super) const LEAVE_GROUP: Shape = shape(
    4,
    &[
        field("throttle_time_ms", INT32).since(1),
        field("error_code", INT16),
        field(
            "members",
            array(&fields(&[
                field("member_id", STRING),
                field("group_instance_id", STRING),
                field("error_code", INT16),
            ])),
        )
        .since(3),
    ],
);

pub(super) const DESCRIBE_GROUPS: Shape = shape(
    5,
    &[
        field("throttle_time_ms", INT32).since(1),
        field(
            "groups",
            array(&fields(&[
                field("error_code", INT16),
                field("error_message", STRING).since(6),
                field("group_id", STRING),
                field("group_state", STRING),
                field("protocol_type", STRING),
                field("protocol_data", STRING),
                field(
                    "members",
                    array(&fields(&[
                        field("member_id", STRING),
                        field("group_instance_id", STRING).since(4),
                        field("client_id", STRING),
                        field("client_host", STRING),
                        field("member_metadata", BYTES),
                        field("member_assignment", BYTES),
                    ])),
                ),
                field("authorized_operations", INT32).since(3),
            ])),
        ),
    ],
);

pub(super) const LIST_GROUPS: Shape = shape(
    3,
    &[
        field("throttle_time_ms", INT32).since(1),
        field("error_code", INT16),
        field(
            "groups",
            array(&fields(&[
                field("group_id", STRING),
                field("protocol_type", STRING),
                field("group_state", STRING).since(4),
                field("group_type", STRING).since(5),
            ])),
        ),
    ],
);

pub(super) const DELETE_GROUPS: Shape = shape(
    2,
    &[
        field("throttle_time_ms", INT32),
        field("results", array(&fields(&[field("group_id", STRING), field("error_code", INT16)]))),
    ],
);

pub(super) const CONSUMER_GROUP_HEARTBEAT: Shape = shape(
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

pub(super) const CONSUMER_GROUP_DESCRIBE: Shape = shape(
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
                        field("instance_id", STRING),
                        field("rack_id", STRING),
                        field("member_epoch", INT32),
                        field("client_id", STRING),
                        field("client_host", STRING),
                        field("subscribed_topic_names", array(&STRING)),
                        field("subscribed_topic_regex", STRING),
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
                        field(
                            "target_assignment",
                            fields(&[field(
                                "topic_partitions",
                                array(&fields(&[
                                    field("topic_id", UUID),
                                    field("topic_name", STRING),
                                    field("partitions", array(&INT32)),
                                ])),
                            )]),
                        ),
                        field("member_type", INT8).since(1),
                    ])),
                ),
                field("authorized_operations", INT32),
            ])),
        ),
    ],
);
