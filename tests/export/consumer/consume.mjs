// node consume.mjs FOLDER IMAGE MESSAGES.json: pixels, prompt, ids and features as transformers.js makes them, as JSON.
import fs from 'node:fs';
import path from 'node:path';
import { AutoProcessor, RawImage, env } from '@huggingface/transformers';
import * as ort from 'onnxruntime-node';
import { padToSquare } from './padding.mjs';

const [folder, picture, messages] = process.argv.slice(2);
env.allowRemoteModels = false;
env.localModelPath = `${path.dirname(folder)}/`;
const processor = await AutoProcessor.from_pretrained(path.basename(folder));
const settings = JSON.parse(fs.readFileSync(path.join(folder, 'preprocessor_config.json')));
let image = (await RawImage.read(picture)).rgb();
if (settings.do_pad) image = padToSquare(image, settings.image_mean);
const prompt = processor.tokenizer.apply_chat_template(JSON.parse(fs.readFileSync(messages)), {
  tokenize: false,
  add_generation_prompt: true,
});
const inputs = await processor(image, prompt);
const features = {};
for (const name of ['vision_encoder', 'vision_encoder_fp16', 'vision_encoder_int8']) {
  const session = await ort.InferenceSession.create(path.join(folder, 'onnx', `${name}.onnx`));
  const { data, dims } = inputs.pixel_values;
  const { image_features } = await session.run({ pixel_values: new ort.Tensor('float32', data, dims) });
  features[name] = Array.from(image_features.data);
}
console.log(
  JSON.stringify({
    class: processor.constructor.name,
    image_class: processor.image_processor.constructor.name,
    prompt,
    ids: Array.from(inputs.input_ids.data, Number),
    dims: inputs.pixel_values.dims,
    pixels: Array.from(inputs.pixel_values.data),
    features,
  }),
);
