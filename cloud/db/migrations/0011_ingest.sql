-- Records of one run of a source, asked for by their numbers: by HTTP clients that wait for what becomes of them, and by
-- people who ask where a message is.
CREATE INDEX reject_record ON reject (source_id, epoch, record_seq);
CREATE INDEX inbox_record ON inbox (source_id, record);
CREATE INDEX dead_letter_epoch ON dead_letter (source_id, epoch);
