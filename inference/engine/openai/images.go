package openai

import (
	"strings"

	"clearmlserving/inference/openaiapi"
)

// imageNote stands for an image that a model cannot see.
const imageNote = "(An image was attached, but you cannot see images.)"

// noteImages replaces the images of a chat by notes, and content of texts alone by one text.
func noteImages(chat *openaiapi.Object) {
	messages, err := openaiapi.ParseList(chat.Get("messages"))
	if err != nil {
		return // it has been validated
	}
	changed := false
	for i := range messages {
		parts, err := openaiapi.ParseList(messages[i].Get("content"))
		if err != nil {
			continue // a text
		}
		var texts []string
		images := false
		for k := range parts {
			switch parts[k].Text("type") {
			case "text":
				texts = append(texts, parts[k].Text("text"))
				continue
			case "image_url":
				var note openaiapi.Object
				note.SetText("type", "text")
				note.SetText("text", imageNote)
				parts[k], images = note, true
				texts = append(texts, imageNote)
			}
		}
		if !images {
			continue
		}
		changed = true
		if len(texts) == len(parts) {
			messages[i].SetText("content", strings.Join(texts, "\n"))
		} else {
			messages[i].Set("content", openaiapi.ListOf(parts))
		}
	}
	if changed {
		chat.Set("messages", openaiapi.ListOf(messages))
	}
}
