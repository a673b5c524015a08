-- What hops give to other topics: decided in the transaction that counts it, published after that, then deleted. Nearly
-- empty, unless the bus is away. The batches are compressed already.
CREATE TABLE unsent (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hop    text  NOT NULL,
    lane   text  NOT NULL,
    topic  text  NOT NULL,
    data   bytea NOT NULL
);
ALTER TABLE unsent ALTER COLUMN data SET STORAGE EXTERNAL;
CREATE INDEX unsent_of_hop ON unsent (hop, number);
