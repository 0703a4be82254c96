//! Offsets in the log and of groups.

use super::{INT16, INT32, INT64, NEVER, STRING, Shape, UUID, array, field, fields, shape};

pub(super) const LIST_OFFSETS: Shape = shape(
    6,
    &[
        field("throttle_time_ms", INT32).since(2),
        field(
            "topics",
            array(&fields(&[
                field("name", STRING),
                field(
                    "partitions",
                    array(&fields(&[
                        field("partition_index", INT32),
                        field("error_code", INT16),
                        field("timestamp", INT64),
                        field("offset", INT64),
                        field("leader_epoch", INT32).since(4),
                    ])),
                ),
            ])),
        ),
    ],
);

pub(super) const OFFSET_FOR_LEADER_EPOCH: Shape = shape(
    4,
    &[
        field("throttle_time_ms", INT32),
        field(
            "topics",
            array(&fields(&[
                field("topic", STRING),
                field(
                    "partitions",
                    array(&fields(&[
                        field("error_code", INT16),
                        field("partition", INT32),
                        field("leader_epoch", INT32),
                        field("end_offset", INT64),
                    ])),
                ),
            ])),
        ),
    ],
);

pub(super) const OFFSET_COMMIT: Shape = shape(
    8,
    &[
        field("throttle_time_ms", INT32).since(3),
        field(
            "topics",
            array(&fields(&[
                field("name", STRING).until(9),
                field("topic_id", UUID).since(10),
                field("partitions", array(&fields(&[field("partition_index", INT32), field("error_code", INT16)]))),
            ])),
        ),
    ],
);

pub(super) const OFFSET_FETCH: Shape = shape(
    6,
    &[
        field("throttle_time_ms", INT32).since(3),
        field(
            "topics",
            array(&fields(&[
                field("name", STRING),
                field(
                    "partitions",
                    array(&fields(&[
                        field("partition_index", INT32),
                        field("committed_offset", INT64),
                        field("committed_leader_epoch", INT32).since(5),
                        field("metadata", STRING),
                        field("error_code", INT16),
                    ])),
                ),
            ])),
        )
        .until(7),
        field("error_code", INT16).since(2).until(7),
        field(
            "groups",
            array(&fields(&[
                field("group_id", STRING),
                field(
                    "topics",
                    array(&fields(&[
                        field("name", STRING).until(9),
                        field("topic_id", UUID).since(10),
                        field(
                            "partitions",
                            array(&fields(&[
                                field("partition_index", INT32),
                                field("committed_offset", INT64),
                                field("committed_leader_epoch", INT32),
                                field("metadata", STRING),
                                field("error_code", INT16),
                            ])),
                        ),
                    ])),
                ),
                field("error_code", INT16),
            ])),
        )
        .since(8),
    ],
);

pub(super) const OFFSET_DELETE: Shape = shape(
    NEVER,
    &[
        field("error_code", INT16),
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

pub(super) const DELETE_RECORDS: Shape = shape(
    2,
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
                        field("low_watermark", INT64),
                        field("error_code", INT16),
                    ])),
                ),
            ])),
        ),
    ],
);
