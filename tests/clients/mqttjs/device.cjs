// A device by mqtt.js: says one message, waits for one command, prints it, and answers it if it knows its id.
//   node device.cjs URL VERSION USER PASSWORD MESSAGE
const mqtt = require("mqtt");

const [url, version, username, password, message] = process.argv.slice(2);
const client = mqtt.connect(url, {
  username, password, clientId: "mqttjs", protocolVersion: Number(version), reconnectPeriod: 0,
});
const fail = (error) => { console.error(String(error)); process.exit(1); };
client.on("error", fail);
client.on("connect", async () => {
  try {
    await client.subscribeAsync(version === "5" ? "down/#" : "down/+/+", { qos: 1 });
    await client.publishAsync("up", message, { qos: 2 });
    console.log("recorded");
  } catch (error) { fail(error); }
});
client.on("message", (topic, payload, packet) => {
  const id = packet.properties?.correlationData?.toString() ?? topic.split("/")[2];
  console.log(topic, payload.toString(), id);
  setTimeout(async () => { // its PUBACK leaves after this handler
    try {
      await client.publishAsync(`up/response/${id}`, '{"ok":true}', { qos: 1 });
      client.end();
    } catch (error) { fail(error); }
  }, 50);
});
