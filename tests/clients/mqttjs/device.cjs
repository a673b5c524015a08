// A device by mqtt.js: says one message, waits for one command, prints it.   node device.cjs URL VERSION
const mqtt = require("mqtt");

const [url, version] = process.argv.slice(2);
const client = mqtt.connect(url, {
  username: "pump", password: "pump-secret", clientId: "mqttjs", protocolVersion: Number(version), reconnectPeriod: 0,
});
const fail = (error) => { console.error(String(error)); process.exit(1); };
client.on("error", fail);
client.on("connect", async () => {
  try {
    await client.subscribeAsync("down/#", { qos: 1 });
    await client.publishAsync("up", '{"from":"mqtt.js"}', { qos: 2 });
    console.log("recorded");
  } catch (error) { fail(error); }
});
client.on("message", (topic, payload, packet) => {
  const correlation = packet.properties?.correlationData?.toString() ?? "-";
  console.log(topic, payload.toString(), correlation);
  setTimeout(() => client.end(), 50); // its PUBACK leaves after this handler
});
